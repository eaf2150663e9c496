#!/usr/bin/env bash
# Whether what stands in packaging/ is right: the unit, the manual pages, the completions, and as root a package that installs and
# goes without a trace. Needs target/dist/udispatch, systemd-analyze, man and groff; no running systemd.
set -euo pipefail
cd "$(dirname "$0")/.."

# Where systemd's own scale of 0 to 10 may end at most.
exposure_max=1.6
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() {
    echo "packaging/check.sh: $*" >&2
    exit 1
}

# Offline it says: → Overall exposure level for udispatch.service: 1.6 OK
check_exposure() {
    local exposure
    exposure=$(systemd-analyze security --offline=true --no-pager packaging/systemd/udispatch.service |
        sed -n 's/.*Overall exposure level for udispatch.service: \([0-9.]*\).*/\1/p')
    [ -n "$exposure" ] || fail "systemd-analyze tells no exposure"
    awk -v is="$exposure" -v max="$exposure_max" 'BEGIN { exit !(is <= max) }' ||
        fail "the unit's exposure is $exposure, above $exposure_max: systemd-analyze security --offline=true says by what"
    echo "exposure of the unit: $exposure"
}

# In a tree of its own, where the unit's program is.
check_units() {
    local root="$work/root" units words
    units="$root/etc/systemd/system"
    mkdir -p "$units" "$root/usr/bin" "$root/bin"
    cp packaging/systemd/udispatch.service "$units/"
    cp packaging/systemd/udispatch.socket.example "$units/udispatch.socket"
    install -m 755 /bin/true "$root/usr/bin/udispatch"
    install -m 755 /bin/true "$root/bin/kill"
    local unit
    for unit in sysinit.target basic.target network.target nss-lookup.target multi-user.target shutdown.target sockets.target; do
        printf '[Unit]\nDescription=%s\n' "$unit" > "$units/$unit"
    done
    words=$(systemd-analyze --man=no --root="$root" verify udispatch.service udispatch.socket 2>&1) || fail "$words"
    [ -z "$words" ] || fail "systemd-analyze verify: $words"
}

check_manual() {
    local dir="$1" page words
    for page in "$dir"/udispatch*.1; do
        words=$(MANWIDTH=80 man --warnings --encoding=UTF-8 --local-file "$page" 2>&1 > /dev/null) || fail "$page: $words"
        [ -z "$words" ] || fail "$page: $words"
    done
    [ -e "$dir/udispatch-run.1" ] || fail "there is no udispatch-run(1)"
}

# Of a path, whether it is there is asked; of a link, whether it is, wherever it leads.
exists() {
    [ -e "$1" ] || [ -L "$1" ]
}

check_package() {
    local package="$1" path before
    dpkg-query -W udispatch > /dev/null 2>&1 && fail "udispatch is installed here: remove it first"
    getent passwd udispatch > /dev/null && fail "there is a user udispatch already"
    exists /etc/udispatch && fail "there is an /etc/udispatch already"
    before=$(traces)
    # Whatever comes next, the machine is left as it was.
    trap 'dpkg --purge udispatch > "$work/purge" 2>&1 || true; rm -rf "$work"' EXIT
    # Machines for builds may be told to leave manual pages out.
    dpkg --path-include='/usr/share/*' --install "$package" > "$work/install" 2>&1 || fail "$(cat "$work/install")"
    for path in /usr/bin/udispatch /etc/udispatch/udispatch.toml /usr/lib/systemd/system/udispatch.service \
        /usr/lib/sysusers.d/udispatch.conf /usr/share/man/man1/udispatch.1.gz \
        /usr/share/bash-completion/completions/udispatch /usr/share/fish/vendor_completions.d/udispatch.fish \
        /usr/share/zsh/vendor-completions/_udispatch /usr/share/doc/udispatch/copyright \
        /etc/systemd/system/multi-user.target.wants/udispatch.service; do
        exists "$path" || fail "the package has no $path"
    done
    [ "$(stat -c %U:%a /etc/udispatch/udispatch.toml)" = root:644 ] || fail "/etc/udispatch/udispatch.toml is not root's"
    getent passwd udispatch > /dev/null || fail "the package makes no user"
    dpkg --verify udispatch || fail "files of the package differ from it"
    setpriv --reuid=udispatch --regid=udispatch --clear-groups \
        /usr/bin/udispatch check /etc/udispatch/udispatch.toml || fail "its configuration is wrong"
    dpkg --remove udispatch > "$work/remove" 2>&1 || fail "$(cat "$work/remove")"
    [ -e /etc/udispatch/udispatch.toml ] || fail "the configuration goes before a purge"
    dpkg --purge udispatch > "$work/purge" 2>&1 || fail "$(cat "$work/purge")"
    # What was there before may go: /run/udispatch of a daemon that somebody ran by hand is the package's, too.
    local left
    left=$(comm -13 <(echo "$before" | sort) <(traces | sort))
    [ -z "$left" ] || fail "it leaves behind: $left"
    echo "the package installs, and goes without a trace"
}

# All that has the daemon's name where packages put things, and the users.
traces() {
    find /etc /run /usr /var/lib /var/cache -xdev -name '*udispatch*' -not -path '/usr/src/*' 2> /dev/null | sort
    getent passwd udispatch || true
    getent group udispatch || true
}

check_exposure
check_units
package=$(packaging/build-deb.sh --fast)
check_manual target/package/man
bash -n target/package/udispatch.bash
target/dist/udispatch check packaging/udispatch.toml
if [ "$(id -u)" = 0 ]; then
    check_package "$package"
else
    echo "SKIPPED: the package, which root alone can install"
fi
