//! Multipart uploads, for people.

use std::io::{self, Write};

use bucket_brigade::{AbortedUploads, UnfinishedUpload};
use indicatif::BinaryBytes;

use crate::printable::Printable;

fn upload_line(upload: &UnfinishedUpload) -> String {
    let id = upload.upload_id.as_deref().unwrap_or("(upload ID unknown)");
    // The response with the upload ID was lost: this may be an upload of somebody else.
    let doubt = if upload.certain { "" } else { "; may not be ours, so brigade never aborts it" };
    let (sent, size) = (BinaryBytes(upload.sent), BinaryBytes(upload.size));
    format!("{} {} ({sent} of {size} sent){doubt}", Printable(&upload.key), Printable(id))
}

/// Prints the open multipart uploads.
pub(crate) fn print_uploads(open: &[UnfinishedUpload]) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    if open.is_empty() {
        return writeln!(out, "no multipart uploads are open");
    }
    open.iter().try_for_each(|upload| writeln!(out, "{}", upload_line(upload)))
}

/// Prints the uploads that were aborted, and those that were left.
pub(crate) fn print_aborted(result: &AbortedUploads) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    for (what, uploads) in [("aborted", &result.aborted), ("left", &result.left)] {
        for upload in uploads {
            writeln!(out, "{what} {}", upload_line(upload))?;
        }
    }
    writeln!(
        out,
        "{} aborted, {} left, {} failed",
        result.aborted.len(),
        result.left.len(),
        result.failed.len()
    )
}
