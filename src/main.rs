//! The `instar` command.

fn main() -> std::process::ExitCode {
    instar::run(std::env::args_os())
}
