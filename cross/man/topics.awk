# The topics of src/cli/topics.txt as mdoc, with prose.awk: "# name: Title" begins one. In it are paragraphs, lines that are
# typed, behind four spaces, and lists: "  term  text", with the text's further lines behind more spaces than four.
function flush() {
    if (text != "") { prose(text); lead = 1 }
    text = ""
}
function end() {
    flush()
    if (list) print ".El"
    if (block) print ".Ed"
    list = block = 0
}
function paragraph() {
    if (lead) print ".Pp"
    lead = 0
}
/^# [a-z-]+: / {
    end()
    sub(/^# [a-z-]+: /, "")
    print ".Sh " toupper($0)
    lead = 0
    next
}
/^$/ { end(); next }
list && /^     / { sub(/^ +/, ""); text = text " " $0; next }
/^    [^ ]/ {
    flush()
    if (!block) print ".Bd -literal -offset indent"
    block = lead = 1
    print literal(substr($0, 5))
    next
}
/^  [^ ]/ {
    flush()
    if (!list) print ".Bl -tag -width Ds"
    list = lead = 1
    match(substr($0, 3), /  +/)
    print ".It Cm \"\\&" literal(substr($0, 3, RSTART - 1)) "\""
    text = substr($0, 2 + RSTART + RLENGTH)
    next
}
/^ / { fail("not understood") }
{
    if (text == "") paragraph()
    text = text (text == "" ? "" : " ") $0
}
END { if (!failed) end() }
