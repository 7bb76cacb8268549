//! Every Caponier program in one, chosen by the first argument: gives tests a
//! path to them (`CARGO_BIN_EXE_applets`).

use std::process::ExitCode;

fn main() -> ExitCode {
    tools::applet::main()
}
