# Sourced, with $WORK set: Debian packages of another release or architecture, through an apt state of its own, so
# that this machine's sources and foreign architectures stay as they are. The mirrors are this machine's own.
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

mirror() {
    cat /etc/apt/sources.list.d/*.sources 2>/dev/null | awk -v suite="$1" \
        '/^URIs:/ {u = $2} /^Suites:/ {for (i = 2; i <= NF; i++) if ($i == suite) {print u; exit}}'
}

# Prints why Debian's packages cannot be had here, or nothing.
debian_missing() {
    command -v apt-get >/dev/null || { echo "no apt-get"; return; }
    [ -e $keyring ] || { echo "no Debian keyring"; return; }
    [ -n "$(mirror bookworm)" ] || { echo "no source for Debian bookworm in /etc/apt/sources.list.d"; return; }
    [ "$(id -u)" = 0 ] || echo "not root"
}

debian_setup() {
    local main security
    main=$(mirror bookworm) security=$(mirror bookworm-security)
    mkdir -p "$WORK/apt/lists/partial"
    cat > "$WORK/apt/sources.list" <<LIST
deb [arch=amd64,arm64 signed-by=$keyring] $main bookworm main
deb [arch=amd64,arm64 signed-by=$keyring] $main bookworm-updates main
deb [arch=amd64,arm64 signed-by=$keyring] ${security:-$main-security} bookworm-security main
deb [arch=amd64,arm64 signed-by=$keyring] $main bookworm-backports main
deb [arch=amd64 signed-by=$keyring] $main trixie-backports main
LIST
    apt_options=(-o "Dir::Etc::sourcelist=$WORK/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null
        -o "Dir::State::lists=$WORK/apt/lists" -o APT::Architecture=amd64 -o APT::Architectures::=amd64
        -o APT::Architectures::=arm64 -o APT::Sandbox::User=root -o APT::Default-Release=bookworm)
    apt_get -q update >/dev/null
}

apt_get() { DEBIAN_FRONTEND=noninteractive apt-get "${apt_options[@]}" "$@"; }
apt_cache() { apt-cache "${apt_options[@]}" "$@"; }

# install_missing COMMAND=PACKAGE... : installs the packages whose command is not there, and says so.
install_missing() {
    local pair packages=()
    for pair in "$@"; do command -v "${pair%%=*}" >/dev/null || packages+=("${pair#*=}"); done
    [ ${#packages[@]} -eq 0 ] && return
    echo "installing: ${packages[*]}" >&2
    apt_get -q install -y --no-install-recommends "${packages[@]}" >/dev/null
}
