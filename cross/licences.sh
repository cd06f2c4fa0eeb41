#!/usr/bin/env bash
# Prints what others wrote of the program, and under which licences: every crate that is linked for a target with its SPDX
# expression, authors and the licence texts of its package, each text once.
#   cross/licences.sh aarch64|armv7|amd64
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/.."
. cross/crate.sh
target=$(triple "${1-}") || { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 64; }
command -v jq >/dev/null || { echo "licences: jq is missing: apt install jq" >&2; exit 69; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# NAME VERSION, manifest, expression, authors, file of the licence, a line each crate; without this project's own. Fields
# are never empty: `read` would join them.
linked=$(linked "$target")
cargo metadata --format-version 1 --locked --filter-platform "$target" | jq -r --arg linked "$linked" '
    ($linked | split("\n")) as $names | .resolve.root as $root
    | .packages | map(select(.id != $root) | . + {full: "\(.name) \(.version)"} | select(.full as $f | any($names[]; . == $f)))
    | sort_by(.full)[] | [.full, .manifest_path, .license // "see its text",
        (.authors | join(", ") | if . == "" then "not named" else . end), .license_file // "none"] | @tsv' > "$work/crates"
[ "$(wc -l < "$work/crates")" = $(($(echo "$linked" | wc -l) - 1)) ] || { echo "licences: crates of one name and version" >&2; exit 65; }

cat <<HEAD
The program outlierd for $target contains the
crates below, and Rust's standard library (MIT OR Apache-2.0, authors: the Rust
project's contributors). Numbers in brackets name the texts of a crate's
package, which follow the list; where it has none, those of its expression hold.

HEAD
declare -A number=()
while IFS=$'\t' read -r full manifest expression authors file; do
    folder=$(dirname "$manifest")
    numbers=
    while IFS= read -r path; do
        # The same but for line ends and space behind them is the same text.
        sum=$(sed 's/[[:space:]]*$//' "$path" | tee "$work/text" | sha256sum | cut -d' ' -f1)
        if [ -z "${number[$sum]-}" ]; then
            number[$sum]=$((${#number[@]} + 1))
            mv "$work/text" "$work/text.${number[$sum]}"
        fi
        numbers+=" [${number[$sum]}]"
    done < <({
        find "$folder" -maxdepth 2 -type f -size -1024k -ipath "$folder/licen[cs]es/*"
        find "$folder" -maxdepth 1 -type f -size -1024k \( -iname 'licen[cs]e*' -o -iname 'copying*' -o -iname 'copyright*' \
            -o -iname 'notice*' -o -iname 'unlicense*' \)
        [ "$file" = none ] || echo "$folder/$file"
    } | sort -u)
    printf '%s\n    %s\n    authors: %s\n    texts:%s\n' "$full" "$expression" "$authors" "${numbers:- none in its package}"
done < "$work/crates"
for ((n = 1; n <= ${#number[@]}; n++)); do
    printf '\n======== [%s]\n\n' $n
    cat "$work/text.$n"
done
