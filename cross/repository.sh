#!/usr/bin/env bash
# Adds packages to a signed apt repository in a folder, which any web server can serve as it is:
#   cross/repository.sh --key KEY FOLDER PACKAGE.deb...
# KEY names a secret key of gpg (GNUPGHOME). FOLDER gets pool/, dists/stable/ and outlierd-archive-keyring.asc, the public
# key; packages that it has already stay. How to make a key, and what a user of the repository writes: cross/README.md.
set -euo pipefail
umask 022
export LC_ALL=C TZ=UTC
say() { echo "repository: $*" >&2; }
usage() { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 64; }

[ "${1-}" = --key ] && [ $# -ge 4 ] || usage
key=$2 folder=$3
shift 3
command -v gpg >/dev/null || { say "gpg is missing: apt install gnupg"; exit 69; }
gpg --batch --quiet --list-secret-keys -- "$key" >/dev/null 2>&1 ||
    { say "gpg has no secret key $key in ${GNUPGHOME:-~/.gnupg}; cross/README.md says how to make one"; exit 66; }

for deb; do
    name=$(dpkg-deb -f "$deb" Package) version=$(dpkg-deb -f "$deb" Version) arch=$(dpkg-deb -f "$deb" Architecture)
    # The epoch is no part of a file's name.
    to=$folder/pool/main/${name:0:1}/$name/${name}_${version#*:}_$arch.deb
    if [ -e "$to" ] && ! cmp -s "$deb" "$to"; then
        say "$to is another package of the same version: $deb needs a version of its own"
        exit 73
    fi
    install -D -m 644 "$deb" "$to"
done

cd "$folder"
index() {
    local deb
    find pool -name "*_$1.deb" | sort | while read -r deb; do
        dpkg-deb -f "$deb"
        printf 'Filename: %s\nSize: %s\nSHA256: %s\n\n' "$deb" "$(stat -c %s "$deb")" "$(sha256sum < "$deb" | cut -d ' ' -f 1)"
    done
}
suite=dists/stable
rm -rf "$suite.part"
architectures=$(find pool -name '*.deb' -printf '%f\n' | sed 's/.*_\(.*\)\.deb/\1/' | sort -u | xargs)
for arch in $architectures; do
    mkdir -p "$suite.part/main/binary-$arch"
    index "$arch" > "$suite.part/main/binary-$arch/Packages"
    gzip -9nk "$suite.part/main/binary-$arch/Packages"
done
(
    cd "$suite.part"
    printf 'Origin: outlierd\nLabel: outlierd\nSuite: stable\nCodename: stable\nDate: %s\n' \
        "$(date -u -R -d "@${SOURCE_DATE_EPOCH:-$(date +%s)}")"
    printf 'Architectures: %s\nComponents: main\nSHA256:\n' "$architectures"
    find main -type f | sort | while read -r file; do
        printf ' %s %s %s\n' "$(sha256sum < "$file" | cut -d ' ' -f 1)" "$(stat -c %s "$file")" "$file"
    done
) > Release.part
mv Release.part "$suite.part/Release"
gpg --batch --yes --local-user "$key" --clearsign --output "$suite.part/InRelease" "$suite.part/Release"
gpg --batch --yes --local-user "$key" --armor --detach-sign --output "$suite.part/Release.gpg" "$suite.part/Release"
gpg --batch --yes --armor --export --output outlierd-archive-keyring.asc -- "$key"
rm -rf "$suite"
mv "$suite.part" "$suite"
say "$PWD: $(find pool -name '*.deb' | wc -l) packages for $architectures"
