# CycloneDX 1.5 of `cargo metadata`, which knows more crates than the features ask for. $linked names the crates that are in
# the program, "NAME VERSION" a line; $lock is Cargo.lock, raw; $timestamp the time in RFC 3339.
def checksums:
    [$lock | split("[[package]]")[1:][]
        | {key: ((capture("\nname = \"(?<n>[^\"]+)\"").n) + " " + (capture("\nversion = \"(?<v>[^\"]+)\"").v)),
           value: (capture("\nchecksum = \"(?<c>[0-9a-f]{64})\"").c? // null)}]
    | from_entries;
def purl: "pkg:cargo/\(.name)@\(.version)";
# Older crates write "MIT/Apache-2.0".
def component($sums):
    {type: "library", "bom-ref": purl, name, version, purl: purl}
    + if .description then {description: (.description | gsub("\\s+"; " ") | sub("^ "; "") | sub(" $"; ""))} else {} end
    + if .license then {licenses: [{expression: (.license | gsub(" */ *"; " OR "))}]}
      else error("\(.name) names no licence") end
    + if $sums["\(.name) \(.version)"] then {hashes: [{alg: "SHA-256", content: $sums["\(.name) \(.version)"]}]} else {} end
    + if .repository then {externalReferences: [{type: "vcs", url: .repository}]} else {} end;

checksums as $sums
| INDEX(.packages[]; .id) as $packages
| ($linked | split("\n") | map(select(. != "") | {key: ., value: true}) | from_entries) as $names
| def linked($id): $packages[$id] | $names["\(.name) \(.version)"] // false;
  .resolve.root as $root
| [.resolve.nodes[] | select(linked(.id))] as $nodes
| {
    bomFormat: "CycloneDX",
    specVersion: "1.5",
    version: 1,
    metadata: {
        timestamp: $timestamp,
        component: ($packages[$root] | component($sums) | .type = "application"),
        properties: [{name: "cargo:target", value: $target}]
    },
    components: [$nodes[].id | select(. != $root) | $packages[.] | component($sums)] | sort_by(.name, .version),
    dependencies: [$nodes[] | {
        ref: ($packages[.id] | purl),
        dependsOn: ([.deps[] | select(any(.dep_kinds[]; .kind == null) and linked(.pkg)) | $packages[.pkg] | purl] | unique)
    }] | sort_by(.ref)
  }
