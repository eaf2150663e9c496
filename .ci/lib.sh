# What .ci/run and .ci/nightly share: the packages, and running steps by name. A script sets `steps` and defines for each one
# a function `step_NAME` and a line `about_NAME`.
export CI=true CARGO_TERM_COLOR=never RUST_BACKTRACE=1

# A compiler for C++ builds libFuzzer. netcat, avahi-daemon, dnsdist and knot are real peers. iproute2, kmod, nftables,
# procps and util-linux make namespaces, cables and firewalls. curl, chromium and prometheus are clients of the control
# socket; prometheus also judges the metrics, and tshark the captures. jq is what the operations guide uses. The checks of
# the package need systemd, a container in which it runs, man and groff.
packages=(avahi-daemon chromium chromium-driver curl dnsdist g++ groff-base iproute2 jq kmod knot man-db netcat-openbsd
    nftables procps prometheus python3 systemd systemd-container tshark util-linux)

# The file that forbids packages to start services, while it is there.
policy=

# Installs those of the given packages that are missing. No service is started: the tests start what they need, each in a
# namespace of its own.
install_packages() {
    local package missing=()
    for package in "$@"; do
        dpkg-query -W -f='${Status}' "$package" 2> /dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    if [ ${#missing[@]} -eq 0 ]; then
        return
    fi
    if [ "$(id -u)" != 0 ]; then
        echo "missing, and only root can install them: ${missing[*]}" >&2
        return 1
    fi
    apt-get update -q
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        policy=/usr/sbin/policy-rc.d
        printf '#!/bin/sh\nexit 101\n' > "$policy"
        chmod 755 "$policy"
    fi
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"
}

# The step that runs, for the message if it fails.
current=
at_exit() {
    local status=$?
    [ -z "$policy" ] || rm -f "$policy"
    if [ $status -ne 0 ] && [ -n "$current" ]; then
        echo "== $current: FAILED" >&2
    fi
}
trap at_exit EXIT

# Runs the steps that are named, or all of them, and says how long each one took.
main() {
    local name about wanted=("$@")
    if [ "${1:-}" = --list ]; then
        for name in "${steps[@]}"; do
            about="about_$name"
            printf '%-10s  %s\n' "$name" "${!about}"
        done
        return
    fi
    [ ${#wanted[@]} -gt 0 ] || wanted=("${steps[@]}")
    for name in "${wanted[@]}"; do
        case " ${steps[*]} " in
            *" $name "*) ;;
            *)
                echo "there is no step $name; the steps are: ${steps[*]}" >&2
                return 2
                ;;
        esac
    done
    for name in "${wanted[@]}"; do
        local begun=$SECONDS
        current=$name
        echo "== $name"
        "step_$name"
        current=
        echo "== $name: passed after $((SECONDS - begun)) s"
    done
}
