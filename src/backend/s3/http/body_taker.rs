//! Finds the body of an answer in the bytes of a connection, by the rules of ureq.

use zeroize::Zeroizing;

/// The bytes of the longest answer.
pub(crate) const MAX_ANSWER: usize = 64 * 1024;
/// The headers that ureq reads of an answer.
const MAX_HEADERS: usize = 128;
/// The bytes that ureq reads of a line with the size of a chunk.
const MAX_SIZE_LINE: usize = 22;

/// The part of a response that the next byte belongs to.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Part {
    #[default]
    Head,
    /// A body whose length the head tells, or that lasts until the connection ends.
    Body,
    /// The line with the size of a chunk.
    Size,
    /// A chunk that has this many bytes left.
    Chunk(u64),
    /// The line end behind a chunk.
    ChunkEnd,
    Trailer,
}

/// Takes the body out of a response.
#[derive(Default)]
pub(crate) struct BodyTaker {
    part: Part,
    /// The head so far, or the line with a chunk's size.
    text: Vec<u8>,
    body: Zeroizing<Vec<u8>>,
}

impl BodyTaker {
    /// Replaces the bytes of the body by asterisks.
    pub(crate) fn take(&mut self, input: &mut [u8]) {
        if self.body.capacity() == 0 {
            // It never grows, or a copy of the credentials would stay behind in memory.
            self.body.reserve_exact(MAX_ANSWER + 1);
        }
        for byte in input {
            match self.part {
                Part::Head => self.take_head(*byte),
                Part::Body => self.take_byte(byte),
                Part::Size => self.take_size(*byte),
                Part::Chunk(left) => {
                    self.take_byte(byte);
                    self.part = if left > 1 { Part::Chunk(left - 1) } else { Part::ChunkEnd };
                }
                Part::ChunkEnd if *byte == b'\n' => self.part = Part::Size,
                // Whatever else stands there is refused by ureq, or skipped as a trailer.
                Part::ChunkEnd | Part::Trailer if !matches!(byte, b'\r' | b'\n') => *byte = b'*',
                Part::ChunkEnd | Part::Trailer => {}
            }
        }
    }

    /// Returns the body.
    pub(crate) fn finish(&mut self) -> Zeroizing<Vec<u8>> {
        std::mem::take(&mut self.body)
    }

    fn take_byte(&mut self, byte: &mut u8) {
        // What is longer is refused anyway.
        if self.body.len() <= MAX_ANSWER {
            self.body.push(*byte);
        }
        *byte = b'*';
    }

    fn take_head(&mut self, byte: u8) {
        // The parser skips empty lines before the first one, and accepts bare line feeds.
        if self.text.is_empty() && matches!(byte, b'\r' | b'\n') {
            return;
        }
        self.text.push(byte);
        if !(self.text.ends_with(b"\n\r\n") || self.text.ends_with(b"\n\n")) {
            return;
        }
        if let Some(part) = part_behind(&self.text) {
            self.text.clear();
            self.part = part;
        }
    }

    fn take_size(&mut self, byte: u8) {
        self.text.push(byte);
        // ureq refuses a size that is none, so what follows is not read; it is hidden all the same.
        if let Some(line) = self.text.strip_suffix(b"\r\n") {
            let size = line.split(|byte| *byte == b';').next().and_then(|size| str::from_utf8(size).ok());
            self.part = match size.and_then(|size| u64::from_str_radix(size.trim(), 16).ok()) {
                Some(0) => Part::Trailer,
                Some(size) => Part::Chunk(size),
                None => Part::Body,
            };
            self.text.clear();
        } else if self.text.len() > MAX_SIZE_LINE {
            self.part = Part::Body;
        }
    }
}

/// Returns the part that follows a head, by the rules of ureq; `None` if the head goes on.
fn part_behind(head: &[u8]) -> Option<Part> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return None,
        // ureq refuses it, too. What follows is hidden all the same.
        Err(_) => return Some(Part::Body),
    }
    // 101 is the last one.
    if response.code.is_some_and(|code| (100..200).contains(&code) && code != 101) {
        return Some(Part::Head);
    }
    let lists =
        response.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("transfer-encoding"));
    let is_chunked = lists.filter_map(|header| str::from_utf8(header.value).ok()).any(|list| {
        list.is_ascii() && list.split(',').any(|coding| coding.trim().eq_ignore_ascii_case("chunked"))
    });
    // HTTP/1.0 has no chunks, whatever its headers say.
    Some(if is_chunked && response.version == Some(1) { Part::Size } else { Part::Body })
}
