# Text and literal lines as mdoc, and the end where one is not understood, for the other programs.
function fail(why) {
    print FILENAME ":" FNR ": " why ": " $0 > "/dev/stderr"
    failed = 1
    exit 1
}
function prose(text,  count, i, line) {
    gsub(/\\/, "\\e", text)
    while (match(text, /`[^`]*`/))
        text = substr(text, 1, RSTART - 1) "\\fB" substr(text, RSTART + 1, RLENGTH - 2) "\\fP" substr(text, RSTART + RLENGTH)
    # A sentence a line, none of which is taken for a request.
    gsub(/\. /, ".\n", text)
    count = split(text, line, "\n")
    for (i = 1; i <= count; i++) print (line[i] ~ /^[.\047]/ ? "\\&" : "") line[i]
}
function literal(line) {
    gsub(/\\/, "\\e", line)
    gsub(/-/, "\\-", line)
    gsub(/"/, "\\(dq", line)
    return line
}
