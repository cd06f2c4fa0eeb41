# The sections and keys of systemd/outlierd.toml as mdoc, with prose.awk. A comment belongs to what stands below it: to a section, or to the
# keys up to the next comment or blank line. A line "#key = value" is a key too. A section whose name has a dot is shown as
# it stands.
function flush_keys(  i) {
    for (i = 1; i <= keys; i++) {
        if (!list) { print ".Bl -tag -width Ds"; list = 1 }
        print ".It Cm \"" literal(key[i]) "\""
    }
    if (keys) prose(keytext)
    keys = 0
}
function end_list() {
    flush_keys()
    if (list) print ".El"
    list = 0
}
function end_block() {
    if (block) print ".Ed"
    block = 0
}
/^$/ {
    flush_keys(); end_block()
    if (text != "" && name != "") fail("a comment without a key or a section below it")
    # The head of the file is for those who edit it.
    text = ""
    next
}
/^# / {
    flush_keys()
    text = text (text == "" ? "" : " ") substr($0, 3)
    next
}
/^#?\[/ {
    end_list(); end_block()
    name = $0
    sub(/^#/, "", name)
    print ".Ss " name
    if (text != "") prose(text)
    text = ""
    if (name ~ /\./) {
        print ".Bd -literal -offset indent"
        print literal(name)
        block = 1
    }
    next
}
/^#?[a-z_-]+ = / {
    line = $0
    sub(/^#/, "", line)
    if (block) { print literal(line); next }
    if (text != "") { keytext = text; text = "" } else if (!keys) fail("a key without a comment")
    key[++keys] = line
    next
}
{ fail("neither a comment nor a key") }
END { if (!failed) { end_list(); end_block() } }
