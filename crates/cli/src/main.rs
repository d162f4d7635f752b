//! The executable. Everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    infinibay_cli::main()
}
