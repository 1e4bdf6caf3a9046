//! Writes a line of an ignore file as the crate `ignore` has to be given it to do what git does.
//!
//! That crate reads a pattern as a glob of its own: it takes `{a,b}` for alternatives, lets `[!a]` match a slash, and
//! knows neither `[[:alpha:]]` nor a backslash between brackets. Here braces become literal, and brackets become
//! alternatives, which have all of that.

use std::iter::Peekable;
use std::str::Chars;

/// Returns the patterns of a line in the syntax of the crate `ignore`, none if it is a comment, or what is wrong with it.
pub(super) fn translate(line: &str) -> Result<Vec<String>, String> {
    let line = trim_spaces(line);
    if line.is_empty() || line.starts_with('#') {
        return Ok(Vec::new());
    }
    if matches!(line, "!" | "/" | "!/") || line.contains("//") {
        return Err("it names no file; write a name on each side of a /".to_owned());
    }
    if let Some(lines) = split_at_stars(line) {
        let patterns = lines.iter().map(|line| translate(line)).collect::<Result<Vec<_>, _>>();
        return patterns.map(|patterns| patterns.concat());
    }
    translate_pattern(line).map(|pattern| vec![pattern])
}

/// Returns what `a**/b` and `/a**` mean to git, in lines without such stars. Its manual says that stars beside a name are
/// plain ones. But git compares what precedes the first of them on its own, so the others stand at a beginning.
fn split_at_stars(line: &str) -> Option<[String; 2]> {
    let (sign, body) = line.strip_prefix('!').map_or(("", line), |body| ("!", body));
    let (body, end) = body.strip_suffix('/').map_or((body, ""), |body| (body, "/"));
    let (name, stars) = body.split_at(body.find(['*', '?', '[', '\\'])?);
    let rest = stars.trim_start_matches('*');
    let is_run = stars.len() > rest.len() + 1 && (rest.is_empty() || rest.starts_with('/'));
    if !is_run || !body.contains('/') || name.is_empty() || name.ends_with('/') {
        return None;
    }
    let name = name.strip_prefix('/').unwrap_or(name);
    Some(match rest.strip_prefix('/') {
        Some(rest) => [format!("{sign}/{name}{rest}{end}"), format!("{sign}/{name}*/**/{rest}{end}")],
        None => [format!("{sign}/{name}*{end}"), format!("{sign}/{name}*/**{end}")],
    })
}

fn translate_pattern(line: &str) -> Result<String, String> {
    let (mut chars, mut written) = (line.chars().peekable(), String::with_capacity(line.len()));
    while let Some(char) = chars.next() {
        match char {
            '\\' => {
                let escaped =
                    chars.next().ok_or("the backslash at the end escapes nothing; write \\\\ for one")?;
                write_escaped(escaped, &mut written);
            }
            '[' => Class::read(&mut chars)?.write(&mut written)?,
            '*' => {
                // More than two mean the same as two.
                let more = std::iter::from_fn(|| chars.next_if_eq(&'*')).count();
                written.push_str(if more == 0 { "*" } else { "**" });
            }
            '{' | '}' => write_escaped(char, &mut written),
            // White space at the end of a line would be removed.
            space if space.is_whitespace() => written.extend(['{', space, '}']),
            other => written.push(other),
        }
    }
    Ok(written)
}

/// Removes the spaces at the end of a line, as git does: those that no backslash escapes.
fn trim_spaces(line: &str) -> &str {
    let (mut end, mut chars) = (0, line.char_indices());
    while let Some((at, char)) = chars.next() {
        match char {
            ' ' => {}
            '\\' => end = chars.next().map_or(line.len(), |(at, escaped)| at + escaped.len_utf8()),
            other => end = at + other.len_utf8(),
        }
    }
    &line[..end]
}

fn write_escaped(char: char, written: &mut String) {
    if char.is_whitespace() {
        written.extend(['{', char, '}']);
    } else {
        written.extend(['\\', char]);
    }
}

/// The characters between brackets. All of them are ASCII.
struct Class {
    negated: bool,
    members: [bool; 128],
}

impl Class {
    /// Reads a class behind its opening bracket.
    fn read(chars: &mut Peekable<Chars<'_>>) -> Result<Self, String> {
        let unclosed = || "the [ has no ] behind it; write \\[ for the character".to_owned();
        let negated = chars.next_if(|char| matches!(char, '!' | '^')).is_some();
        let (mut class, mut before) = (Self { negated, members: [false; 128] }, None);
        // A bracket in the first place is a member.
        let mut char = chars.next().ok_or_else(unclosed)?;
        loop {
            before = match (char, before) {
                ('[', _) if chars.peek() == Some(&':') => {
                    class.add_named(chars)?;
                    None
                }
                ('-', Some(from)) if chars.peek().is_some_and(|next| *next != ']') => {
                    let to = chars.next().map(|to| unescape(to, chars)).ok_or_else(unclosed)?;
                    class.add_range(from, to.ok_or_else(unclosed)?)?;
                    None
                }
                (char, _) => {
                    let member = unescape(char, chars).ok_or_else(unclosed)?;
                    class.add_range(member, member)?;
                    Some(member)
                }
            };
            char = chars.next().ok_or_else(unclosed)?;
            if char == ']' {
                return Ok(class);
            }
        }
    }

    fn add_range(&mut self, from: char, to: char) -> Result<(), String> {
        if from > to {
            return Err(format!("the range {from}-{to} is empty; write {to}-{from}"));
        }
        if !to.is_ascii() {
            return Err(format!("{to} cannot stand between brackets: only ASCII characters can"));
        }
        if from == '/' && to == '/' {
            return Err("/ cannot stand between brackets, which never match it".to_owned());
        }
        self.members[from as usize..=to as usize].fill(true);
        Ok(())
    }

    /// Adds a class such as `[:alpha:]`, whose opening bracket was read.
    fn add_named(&mut self, chars: &mut Peekable<Chars<'_>>) -> Result<(), String> {
        let name: String = chars.by_ref().take_while(|char| *char != ']').collect();
        let holds: fn(&u8) -> bool = match name.as_str() {
            ":alnum:" => u8::is_ascii_alphanumeric,
            ":alpha:" => u8::is_ascii_alphabetic,
            ":blank:" => |byte| matches!(byte, b' ' | b'\t'),
            ":cntrl:" => u8::is_ascii_control,
            ":digit:" => u8::is_ascii_digit,
            ":graph:" => u8::is_ascii_graphic,
            ":lower:" => u8::is_ascii_lowercase,
            ":print:" => |byte| matches!(byte, b' '..=b'~'),
            ":punct:" => u8::is_ascii_punctuation,
            ":space:" => |byte| matches!(byte, b' ' | b'\t'..=b'\r'),
            ":upper:" => u8::is_ascii_uppercase,
            ":xdigit:" => u8::is_ascii_hexdigit,
            _ => return Err(format!("[{name}] is no class of characters; write one such as [:alpha:]")),
        };
        (0..128).filter(holds).for_each(|byte| self.members[usize::from(byte)] = true);
        Ok(())
    }

    /// Writes the class as alternatives: one for each ASCII character that it matches, and one for all other bytes.
    fn write(&self, written: &mut String) -> Result<(), String> {
        let is_matched =
            |char: &char| self.members[*char as usize] != self.negated && !matches!(char, '/' | '\0');
        let matched: Vec<_> = ('\0'..='\x7f').filter(is_matched).collect();
        if matched.is_empty() && !self.negated {
            return Err("the brackets match nothing".to_owned());
        }
        written.push('{');
        if self.negated {
            written.push_str("[!\0-\x7f]");
        }
        for (index, char) in matched.into_iter().enumerate() {
            written.push_str(if index > 0 || self.negated { ",\\" } else { "\\" });
            written.push(char);
        }
        written.push('}');
        Ok(())
    }
}

/// Returns a character, or the one behind it if it is a backslash.
fn unescape(char: char, chars: &mut Peekable<Chars<'_>>) -> Option<char> {
    if char == '\\' { chars.next() } else { Some(char) }
}

#[cfg(test)]
mod tests {
    use super::translate;

    #[test]
    fn lines_are_written_so_that_only_what_git_gives_a_meaning_has_one() {
        for (line, written) in [
            ("# a comment", None),
            ("", None),
            ("   ", None),
            ("a  ", Some("a")),
            ("a\\ ", Some("a{ }")),
            ("a\\  ", Some("a{ }")),
            ("a\\\\ ", Some("a\\\\")),
            ("a\t", Some("a{\t}")),
            ("!a/*", Some("!a/*")),
            ("\\!a", Some("\\!a")),
            ("/{a,b}/", Some("/\\{a,b\\}/")),
            ("a/****/b", Some("a/**/b")),
            ("[a-c-]x", Some("{\\-,\\a,\\b,\\c}x")),
            ("[]\\]-]", Some("{\\-,\\]}")),
            ("[a-c-e]", Some("{\\-,\\a,\\b,\\c,\\e}")),
            ("[[:digit:]_]", Some("{\\0,\\1,\\2,\\3,\\4,\\5,\\6,\\7,\\8,\\9,\\_}")),
        ] {
            assert_eq!(translate(line).unwrap(), written.into_iter().collect::<Vec<_>>(), "{line:?}");
        }
        assert_eq!(translate("!a**/b/").unwrap(), ["!/ab/", "!/a*/**/b/"]);
        assert_eq!(translate("a/b**").unwrap(), ["/a/b*", "/a/b*/**"]);
        let negated = translate("[!a]").unwrap().concat();
        assert!(negated.starts_with("{[!\0-\x7f],\\\x01") && !negated.contains(['/', 'a']), "{negated}");
    }

    #[test]
    fn lines_that_git_would_let_match_nothing_are_wrong() {
        for (line, why) in [
            ("!", "it names no file"),
            ("!/", "it names no file"),
            ("a//b", "it names no file"),
            ("a\\", "escapes nothing"),
            ("[a", "has no ]"),
            ("[]", "has no ]"),
            ("[a-", "has no ]"),
            ("[a\\", "has no ]"),
            ("[z-a]", "the range z-a is empty; write a-z"),
            ("[é]", "é cannot stand between brackets"),
            ("[a/]", "/ cannot stand between brackets"),
            ("[[:alfa:]]", "[:alfa:] is no class"),
            ("[[:alpha:", "has no ]"),
            ("[[:alpha]", "[:alpha] is no class"),
        ] {
            let wrong = translate(line).unwrap_err();
            assert!(wrong.contains(why), "{line:?}: {wrong}");
        }
    }
}
