//! What a shell and `man` know about a command line: completions and pages, made from the same definition that parses it.
//!
//! Both binaries have the subcommands `completions` and `man`; what they are made of is handed in.

use std::io;
use std::path::PathBuf;

use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::Man;

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Arguments of `man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Write the pages of all commands into this directory; without it the main page is printed.
    #[arg(value_name = "DIR")]
    pub directory: Option<PathBuf>,
}

/// The script that completes a command line.
#[must_use]
pub fn completions(args: &CompletionsArgs, mut command: Command) -> Vec<u8> {
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    script
}

/// The main page; or nothing, and all pages in the directory that was named.
///
/// # Errors
/// When a page can't be written.
pub fn man(args: &ManArgs, command: Command) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    match &args.directory {
        Some(directory) => {
            std::fs::create_dir_all(directory)?;
            clap_mangen::generate_to(command, directory)?;
        }
        None => Man::new(command).render(&mut page)?,
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn every_shell_gets_a_script_that_knows_the_commands() {
        for shell in [
            Shell::Bash,
            Shell::Zsh,
            Shell::Fish,
            Shell::Elvish,
            Shell::PowerShell,
        ] {
            let script = completions(&CompletionsArgs { shell }, Cli::command());
            assert!(String::from_utf8(script).unwrap().contains("drain"), "{shell}");
        }
    }

    #[test]
    fn the_pages_of_all_commands_are_written_where_they_were_wished() {
        let dir = tempfile::tempdir().unwrap();
        let args = ManArgs {
            directory: Some(dir.path().join("man1")),
        };
        assert_eq!(man(&args, Cli::command()).unwrap(), b"");
        for page in ["socket-el.1", "socket-el-run.1", "socket-el-check.1"] {
            let text = std::fs::read_to_string(dir.path().join("man1").join(page)).unwrap();
            assert!(text.contains(".SH SYNOPSIS"), "{page}");
        }
        let main = man(&ManArgs { directory: None }, Cli::command()).unwrap();
        assert!(String::from_utf8(main).unwrap().contains("socket\\-el"));
    }
}
