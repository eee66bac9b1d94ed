//! The `dvcr-importer` program: arguments in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    dvcr_importer::cli::main()
}
