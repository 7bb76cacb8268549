//! The demo; called with the name of another command as its first argument, that command.

fn main() -> std::process::ExitCode {
    tools::applet::main()
}
