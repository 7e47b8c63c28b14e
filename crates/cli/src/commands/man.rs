//! `quorate man`

use std::fs;
use std::path::{Path, PathBuf};

use clap::Command;
use clap_mangen::Man as Page;
use serde_json::json;

use crate::failure::Failure;
use crate::output::{self, Form};

/// Print the manual page, or write those of all commands
///
/// To read one: `quorate man | man -l -`. To install all: `quorate man --dir /usr/local/share/man/man1`.
#[derive(clap::Args)]
pub(crate) struct Man {
    /// Write a page for each command into this directory, which is made if need be
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Man {
    pub(crate) fn run(self, form: Form, mut command: Command) -> Result<(), Failure> {
        // So that every page knows its full name, and the options that are common to all.
        command.build();
        let Some(dir) = self.dir else {
            return output::bytes(&render(command)?);
        };
        fs::create_dir_all(&dir)
            .map_err(|error| Failure::io(format_args!("make {}", dir.display()), &error))?;
        let mut written = Vec::new();
        write(&dir, command, "quorate", &mut written)?;
        match form {
            Form::Json => output::json(&json!({ "pages": written })),
            Form::Table => {
                output::remark(&format!("{} pages in {}", written.len(), dir.display()));
                Ok(())
            }
        }
    }
}

/// A page for this command, and those of its subcommands: `quorate-bucket-create.1`.
fn write(
    dir: &Path,
    command: Command,
    name: &str,
    written: &mut Vec<PathBuf>,
) -> Result<(), Failure> {
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        if sub.get_name() != "help" {
            write(
                dir,
                sub.clone(),
                &format!("{name}-{}", sub.get_name()),
                written,
            )?;
        }
    }
    let path = dir.join(format!("{name}.1"));
    let page = render(command.display_name(name.to_owned()))?;
    fs::write(&path, page)
        .map_err(|error| Failure::io(format_args!("write {}", path.display()), &error))?;
    written.push(path);
    Ok(())
}

fn render(command: Command) -> Result<Vec<u8>, Failure> {
    let mut page = Vec::new();
    Page::new(command)
        .render(&mut page)
        .map_err(|error| Failure::io("write the page", &error))?;
    Ok(page)
}
