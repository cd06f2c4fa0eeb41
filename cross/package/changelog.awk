# CHANGELOG.md as Debian's changelog. A heading is "## VERSION (YYYY-MM-DD)" or "## VERSION (unreleased)", whose time is
# `unreleased`, in seconds since 1970; the first has the version `version`.
function wrap(text, first, rest,  words, count, i, line) {
    count = split(text, words, " ")
    line = first words[1]
    for (i = 2; i <= count; i++) {
        if (length(line) + length(words[i]) < 79) { line = line " " words[i]; continue }
        print line
        line = rest words[i]
    }
    print line
}
function flush_item() {
    if (item != "") { wrap(item, "  * ", "    "); printed = 1 }
    item = ""
}
function run(command,  line) {
    command | getline line
    close(command)
    return line
}
function flush_version() {
    flush_item()
    if (date != "") printf "\n -- %s  %s\n", maintainer, date
}
/^## / {
    flush_version()
    if (!match($3, /[0-9]+-[0-9]+-[0-9]+/) && $3 != "(unreleased)") {
        print "changelog: neither a date nor (unreleased): " $0 > "/dev/stderr"
        exit failed = 1
    }
    date = run("date -u -R -d " ($3 == "(unreleased)" ? "@" unreleased : substr($3, RSTART, RLENGTH)))
    printf "%soutlierd (%s) unstable; urgency=medium\n\n", (seen ? "\n" : ""), (seen ? $2 : version)
    seen = 1
    printed = 0
    next
}
/^- / { flush_item(); item = substr($0, 3); next }
/^  [^ ]/ { item = item " " substr($0, 3); next }
/^### / { flush_item(); printf "%s  [ %s ]\n", (printed ? "\n" : ""), substr($0, 5); next }
/^$/ || /^# / { flush_item(); next }
{ item = item (item == "" ? "" : " ") $0 }
END { if (!failed) flush_version() }
