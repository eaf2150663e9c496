#!/usr/bin/env bash
# Checks the unit, the manual pages and the completions, and that the Debian package can be built. As root it also installs
# the package and purges it, and checks that nothing is left. It needs target/dist/udispatch, systemd-analyze, man and groff,
# but no running systemd.
set -euo pipefail
cd "$(dirname "$0")/.."

# Highest permitted exposure, on systemd's scale of 0 to 10.
exposure_max=1.6
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() {
    echo "packaging/check.sh: $*" >&2
    exit 1
}

# The line that is parsed: → Overall exposure level for udispatch.service: 1.6 OK
check_exposure() {
    local exposure
    exposure=$(systemd-analyze security --offline=true --no-pager packaging/systemd/udispatch.service |
        sed -n 's/.*Overall exposure level for udispatch.service: \([0-9.]*\).*/\1/p')
    [ -n "$exposure" ] || fail "systemd-analyze has printed no exposure level; its output may have another form in this version"
    awk -v is="$exposure" -v max="$exposure_max" 'BEGIN { exit !(is <= max) }' ||
        fail "the exposure of the unit is $exposure, above $exposure_max; systemd-analyze security --offline=true lists the causes"
    echo "exposure of the unit: $exposure"
}

# Verifies the units in a root directory of their own, which has the programs that they name.
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
    [ -e "$dir/udispatch-run.1" ] || fail "$dir has no manual page udispatch-run(1)"
}

# Whether the path exists. A link exists even if its target does not.
exists() {
    [ -e "$1" ] || [ -L "$1" ]
}

check_package() {
    local package="$1" path before
    dpkg-query -W udispatch > /dev/null 2>&1 && fail "udispatch is installed on this machine; remove it first"
    getent passwd udispatch > /dev/null && fail "there is a user udispatch already; remove it first"
    exists /etc/udispatch && fail "there is an /etc/udispatch already; remove it first"
    before=$(traces)
    # The machine is left as it was, even if a check fails.
    trap 'dpkg --purge udispatch > "$work/purge" 2>&1 || true; rm -rf "$work"' EXIT
    # dpkg on build machines may be configured to leave out manual pages.
    dpkg --path-include='/usr/share/*' --install "$package" > "$work/install" 2>&1 || fail "$(cat "$work/install")"
    for path in /usr/bin/udispatch /etc/udispatch/udispatch.toml /usr/lib/systemd/system/udispatch.service \
        /usr/lib/sysusers.d/udispatch.conf /usr/share/man/man1/udispatch.1.gz \
        /usr/share/bash-completion/completions/udispatch /usr/share/fish/vendor_completions.d/udispatch.fish \
        /usr/share/zsh/vendor-completions/_udispatch /usr/share/doc/udispatch/copyright \
        /etc/systemd/system/multi-user.target.wants/udispatch.service; do
        exists "$path" || fail "the package has no $path"
    done
    [ "$(stat -c %U:%a /etc/udispatch/udispatch.toml)" = root:644 ] || fail "/etc/udispatch/udispatch.toml does not belong to root with mode 644"
    getent passwd udispatch > /dev/null || fail "the package has created no user udispatch"
    dpkg --verify udispatch || fail "installed files differ from those in the package"
    setpriv --reuid=udispatch --regid=udispatch --clear-groups \
        /usr/bin/udispatch check /etc/udispatch/udispatch.toml || fail "the configuration file of the package is wrong"
    dpkg --remove udispatch > "$work/remove" 2>&1 || fail "$(cat "$work/remove")"
    [ -e /etc/udispatch/udispatch.toml ] || fail "removing the package has removed its configuration file; only a purge may"
    dpkg --purge udispatch > "$work/purge" 2>&1 || fail "$(cat "$work/purge")"
    # Files that existed before may be removed: a daemon that ran without the package may have created /run/udispatch.
    local left
    left=$(comm -13 <(echo "$before" | sort) <(traces | sort))
    [ -z "$left" ] || fail "a purge of the package leaves behind: $left"
    echo "the package can be installed, and a purge leaves nothing"
}

# Prints the files with the daemon's name in the directories that packages use, and its user and group.
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
    echo "SKIPPED: installing the package, which only root can do"
fi
