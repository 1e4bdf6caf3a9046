//! `man`: prints the manual page.

use std::io::{self, Write};

use bucket_brigade::StorageError;
use clap_mangen::Man;

use crate::{check_output, exit, parse};

/// Prints the page, with a section for each command.
pub(crate) fn man() -> Result<u8, StorageError> {
    let mut page = Vec::new();
    check_output(write_page(&mut page))?;
    check_output(io::stdout().write_all(&page)).map(|()| exit::DONE)
}

fn write_page(to: &mut dyn Write) -> io::Result<()> {
    let mut command = parse::command();
    // Fills in the full names of the subcommands.
    command.build();
    Man::new(command.clone()).render(to)?;
    let commands = command.get_subcommands().filter(|command| command.get_name() != "help");
    for command in commands {
        let name = command.get_name().to_uppercase();
        writeln!(to, ".SH \"BRIGADE {name}\"")?;
        let page = Man::new(command.clone());
        page.render_synopsis_section(to)?;
        page.render_description_section(to)?;
        page.render_options_section(to)?;
    }
    Ok(())
}
