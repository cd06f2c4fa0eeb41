# Kinds and fields of an event as mdoc, from the doc comments of `Kind` and `Event` in src/watch/events/event.rs, with prose.awk.
function item(name, note) {
    if (doc == "") fail("no doc comment")
    gsub(/-/, "\\-", name)
    print ".It Cm " name
    if (note != "") print "(" note ")"
    prose(doc)
    doc = left_out = ""
}
function kebab(name,  out, i, c) {
    for (i = 1; i <= length(name); i++) {
        c = substr(name, i, 1)
        out = out (c ~ /[A-Z]/ && i > 1 ? "-" : "") tolower(c)
    }
    return out
}
# What JSON has for a type.
function json(type,  or_null) {
    or_null = type ~ /^Option</ ? (left_out ? "; may be left out" : " or null") : ""
    gsub(/^Option<|>$/, "", type)
    if (type ~ /^(SystemTime|String|PathBuf|Kind)$/) return "string" or_null
    if (type ~ /^[uif][0-9]+$/) return "number" or_null
    if (type ~ /^\[f64; [0-9]+\]$/) return "array of numbers" or_null
    fail("a type without a name in JSON")
}
/^pub (enum Kind|struct Event) \{/ { inside = $3; print ".Ss " (inside == "Kind" ? "Kinds" : "Fields") "\n.Bl -tag -width Ds"; doc = ""; next }
!inside { next }
/^}/ { print ".El"; inside = ""; next }
/^ *\/\/\/ / { sub(/^ *\/\/\/ /, ""); doc = doc (doc == "" ? "" : " ") $0; next }
/^ *#\[/ { if (/skip_serializing_if/) left_out = 1; next }
inside == "Kind" && /^ *[A-Z][A-Za-z]*,$/ { gsub(/[ ,]/, ""); item(kebab($0)); next }
inside == "Event" && /^ *pub [a-z_]+: .*,$/ {
    type = $0
    sub(/^[^:]*: /, "", type)
    sub(/,$/, "", type)
    sub(/:$/, "", $2)
    item($2, json(type))
    next
}
{ fail("not understood") }
