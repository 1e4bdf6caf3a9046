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
    let page = Man::new(command.clone());
    page.render_title(to)?;
    page.render_name_section(to)?;
    page.render_synopsis_section(to)?;
    page.render_description_section(to)?;
    for command in command.get_subcommands().filter(|command| command.get_name() != "help") {
        write_command(to, command)?;
    }
    to.write_all(FILES.as_bytes())?;
    let mut last = Vec::new();
    page.render_extra_section(&mut last)?;
    to.write_all(String::from_utf8_lossy(&last).replace(".SH EXTRA", ".SH EXIT STATUS").as_bytes())
}

/// Writes the section of a command; its own sections are parts of that.
fn write_command(to: &mut dyn Write, command: &clap::Command) -> io::Result<()> {
    writeln!(to, ".SH \"BRIGADE {}\"", command.get_name().to_uppercase())?;
    let (page, mut text) = (Man::new(command.clone()), Vec::new());
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    page.render_options_section(&mut text)?;
    to.write_all(String::from_utf8_lossy(&text).replace(".SH ", ".SS ").as_bytes())
}

const FILES: &str = "\
.SH FILES
.TP
.I brigade.toml
Destinations and their settings. brigade config check reports mistakes in it; the manual has the names of all settings.
.TP
.I ~/.local/state/brigade/
The caches: records of what is published, a file a destination.
.TP
.I .brigadeignore
In the published directory or below: patterns of files that are left out, as in .gitignore.
.TP
.I ~/.aws/credentials, ~/.aws/config
Profiles: credentials, region, endpoint.
";
