# Sourced in the project's root: what Cargo.toml says of the crate. A person edits it there, and nowhere else.
# field NAME : that text of [package], or nothing; of a list, its first.
field() { sed -n '/^\[package\]/,/^\[dep/s/^'"$1"' = \[\{0,1\}"\([^"]*\)".*/\1/p' Cargo.toml; }
