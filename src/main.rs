use std::process::ExitCode;

fn main() -> ExitCode {
    outlierd::main()
}
