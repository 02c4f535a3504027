//! The `scenelex` command: the node, and the tools around it. See `scenelex --help`.

mod commands;

fn main() -> std::process::ExitCode {
    commands::run()
}
