# The common part of .ci/run and .ci/nightly: the list of packages, and a runner of named steps. A script sets `steps`, and
# defines for each step a function `step_NAME` and a description `about_NAME`.
export CI=true CARGO_TERM_COLOR=never RUST_BACKTRACE=1

# g++ builds libFuzzer. netcat, avahi-daemon, dnsdist and knot are real peers. iproute2, kmod, nftables, procps and
# util-linux create namespaces, virtual cables and firewalls. curl, chromium and prometheus are clients of the control
# socket. prometheus also checks the metrics, and tshark checks the captures. The operations guide uses jq. The checks of the
# package need systemd, a container for it, man and groff.
packages=(avahi-daemon chromium chromium-driver curl dnsdist g++ groff-base iproute2 jq kmod knot man-db netcat-openbsd
    nftables procps prometheus python3 systemd systemd-container tshark util-linux)

# Path of the file that keeps packages from starting services, if this script has created it.
policy=

# Installs the given packages that are missing. No service is started, because the tests start their own in namespaces.
install_packages() {
    local package missing=()
    for package in "$@"; do
        dpkg-query -W -f='${Status}' "$package" 2> /dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    if [ ${#missing[@]} -eq 0 ]; then
        return
    fi
    if [ "$(id -u)" != 0 ]; then
        echo "these packages are missing: ${missing[*]}; only root can install them: run this step as root" >&2
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

# The current step, for the message if it fails.
current=
at_exit() {
    local status=$?
    [ -z "$policy" ] || rm -f "$policy"
    if [ $status -ne 0 ] && [ -n "$current" ]; then
        echo "== $current: FAILED" >&2
    fi
}
trap at_exit EXIT

# Runs the named steps, or all steps, and prints the time that each one took.
main() {
    local name about selected=("$@")
    if [ "${1:-}" = --list ]; then
        for name in "${steps[@]}"; do
            about="about_$name"
            printf '%-10s  %s\n' "$name" "${!about}"
        done
        return
    fi
    [ ${#selected[@]} -gt 0 ] || selected=("${steps[@]}")
    for name in "${selected[@]}"; do
        case " ${steps[*]} " in
            *" $name "*) ;;
            *)
                echo "there is no step $name; the steps are: ${steps[*]}" >&2
                return 2
                ;;
        esac
    done
    for name in "${selected[@]}"; do
        local start=$SECONDS
        current=$name
        echo "== $name"
        "step_$name"
        current=
        echo "== $name: passed after $((SECONDS - start)) s"
    done
}
