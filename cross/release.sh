#!/usr/bin/env bash
# Makes what is released, of a git tag that is checked out, in target/release-VERSION: for arm64, armhf and amd64 the package,
# a tarball with install.sh and a bill of materials, and their SHA-256 sums:
#   cross/release.sh vVERSION [--key KEY]
# With a secret key of gpg also an apt repository signed by it, and a signature of the sums. The tag must be Cargo.toml's
# version, dated in CHANGELOG.md, and nothing in the tree may differ from it.
set -euo pipefail
umask 022
cd "$(dirname "$0")/.."
. cross/crate.sh
fail() { echo "release: $*" >&2; exit 65; }

tag=${1-} key=''
case $#:${2-} in
1:) ;;
3:--key) key=$3 ;;
*) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 64 ;;
esac
version=$(field version)
commit=$(git rev-parse --quiet --verify "refs/tags/$tag^{commit}") || fail "there is no tag $tag"
[ "$tag" = "v$version" ] || fail "the tag is $tag, and Cargo.toml's version $version: v$version is needed"
[ "$(git rev-parse HEAD)" = "$commit" ] || fail "$tag is not what is checked out: git switch --detach $tag"
[ -z "$(git status --porcelain)" ] || fail "the tree differs from $tag: git status"
grep -m 1 '^## ' CHANGELOG.md | grep -qE "^## ${version//./\\.} \([0-9]{4}-[0-9]{2}-[0-9]{2}\)\$" ||
    fail "CHANGELOG.md does not begin with \"## $version (YEAR-MONTH-DAY)\""
case $(field authors) in *@localhost\>) echo "release: authors in Cargo.toml has no address that mail reaches" >&2 ;; esac
[ -n "$(field repository)" ] || echo "release: Cargo.toml names no repository: packages have no homepage, and problems cannot be
release: reported as SECURITY.md says" >&2
[ -z "$key" ] || gpg --batch --quiet --list-secret-keys -- "$key" >/dev/null 2>&1 || fail "gpg has no secret key $key"
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct "$commit")
export SOURCE_DATE_EPOCH

out=$PWD/target/release-$version
rm -rf "$out"
mkdir -p "$out"
PROFILE=dist cross/build.sh aarch64 armv7 amd64 > "$out/built"
while read -r deb; do cp "$deb" "$(cross/tarball.sh "$deb")" "$out/"; done < "$out/built"
rm "$out/built"
for name in aarch64 armv7 amd64; do cross/sbom.sh "$name" > "$out/outlierd-$version-$name.cdx.json"; done
# A signature differs each time, so the repository is not among the sums.
(cd "$out" && sha256sum -- * > SHA256SUMS)
if [ -n "$key" ]; then
    gpg --batch --yes --local-user "$key" --armor --detach-sign "$out/SHA256SUMS"
    cross/repository.sh --key "$key" "$out/repository" "$out"/*.deb
fi
echo "$out"
