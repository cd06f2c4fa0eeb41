# Sourced in the project's root: what Cargo.toml says of the crate, and what is linked into the program. A person edits it
# there, and nowhere else.
# field NAME : that text of [package], or nothing; of a list, its first.
field() { sed -n '/^\[package\]/,/^\[dep/s/^'"$1"' = \[\{0,1\}"\([^"]*\)".*/\1/p' Cargo.toml; }
# triple ARCH : Rust's name of a target, by the name of its processor or Debian's.
triple() {
    case $1 in
    aarch64 | arm64) echo aarch64-unknown-linux-gnu ;;
    armv7 | armhf) echo armv7-unknown-linux-gnueabihf ;;
    amd64) echo x86_64-unknown-linux-gnu ;;
    *) return 64 ;;
    esac
}
# linked TRIPLE : "NAME VERSION" of every crate that is linked, this one too. Procedural macros and what build
# scripts need are not in the program.
linked() {
    cargo tree --locked --edges normal,no-proc-macro --target "$1" --prefix none --format '{p}' |
        awk '{sub(/^v/, "", $2); print $1, $2}' | LC_ALL=C sort -u
}
