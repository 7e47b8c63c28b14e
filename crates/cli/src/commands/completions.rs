//! `quorate completions`

use clap::Command;
use clap_complete::Shell;

use crate::failure::Failure;
use crate::output;

/// Print the completions of a shell
///
/// For bash, for instance: `quorate completions bash > ~/.local/share/bash-completion/completions/quorate`.
#[derive(clap::Args)]
pub(crate) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(self, mut command: Command) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, "quorate", &mut script);
        output::bytes(&script)
    }
}
