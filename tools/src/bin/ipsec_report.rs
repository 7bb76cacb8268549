//! `ipsec_report`: see [`tools::commands::ipsec_report`].

fn main() -> std::process::ExitCode {
    tools::commands::ipsec_report::run(std::env::args_os().skip(1).collect())
}
