//! The Content-Type of a file, by the end of its name.

use std::borrow::Cow;

/// Types that `mime_guess` lacks, or has from other times than those of the web. As in the registry of IANA
/// (application/vnd.debian.binary-package, application/vnd.apple.mpegurl, application/yaml, application/toml,
/// application/zstd), RFC 9239 (text/javascript for every kind of script), ECMA-426 (source maps), and where there is
/// no registered one, as nginx, Apache or Fedora's mirrors send it.
const TYPES: [(&str, &str); 13] = [
    ("cjs", "text/javascript"),
    ("deb", "application/vnd.debian.binary-package"),
    ("m3u8", "application/vnd.apple.mpegurl"),
    ("map", "application/json"),
    ("mjs", "text/javascript"),
    ("mts", "video/mp2t"),
    ("rpm", "application/x-rpm"),
    ("toml", "application/toml"),
    // Segments of HLS streams. What is written in TypeScript reaches no browser as it is.
    ("ts", "video/mp2t"),
    ("xpi", "application/x-xpinstall"),
    ("yaml", "application/yaml"),
    ("yml", "application/yaml"),
    ("zst", "application/zstd"),
];

/// What a file of this name is sent as. Text is UTF-8, unless somebody says otherwise with a header.
pub(crate) fn content_type(key: &str) -> Cow<'static, str> {
    let name = key.rsplit('/').next().unwrap_or(key);
    let extension = name.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
    let known = TYPES.iter().find(|(ours, _)| extension.as_deref() == Some(*ours));
    let plain = known.map_or_else(
        || mime_guess::from_path(name).first_raw().unwrap_or("application/octet-stream"),
        |(_, plain)| plain,
    );
    if plain.starts_with("text/") { format!("{plain}; charset=utf-8").into() } else { plain.into() }
}

#[cfg(test)]
mod tests {
    use crate::backend::s3::content_type::content_type;

    #[test]
    fn files_have_the_types_that_the_web_uses() {
        for (name, expected) in [
            ("index.html", "text/html; charset=utf-8"),
            ("a/b.css", "text/css; charset=utf-8"),
            ("app.js", "text/javascript; charset=utf-8"),
            ("app.mjs", "text/javascript; charset=utf-8"),
            ("app.cjs", "text/javascript; charset=utf-8"),
            ("LIST.TXT", "text/plain; charset=utf-8"),
            ("notes.md", "text/markdown; charset=utf-8"),
            ("data.csv", "text/csv; charset=utf-8"),
            ("app.js.map", "application/json"),
            ("data.json", "application/json"),
            ("site.webmanifest", "application/manifest+json"),
            ("feed.xml", "text/xml; charset=utf-8"),
            ("logo.svg", "image/svg+xml"),
            ("photo.avif", "image/avif"),
            ("photo.webp", "image/webp"),
            ("photo.jpeg", "image/jpeg"),
            ("font.woff2", "font/woff2"),
            ("module.wasm", "application/wasm"),
            ("segment0.ts", "video/mp2t"),
            ("live.m3u8", "application/vnd.apple.mpegurl"),
            ("film.mp4", "video/mp4"),
            ("package.rpm", "application/x-rpm"),
            ("package.deb", "application/vnd.debian.binary-package"),
            ("archive.tar.gz", "application/gzip"),
            ("archive.tar.zst", "application/zstd"),
            ("archive.zip", "application/zip"),
            ("paper.pdf", "application/pdf"),
            ("config.yml", "application/yaml"),
            ("Cargo.toml", "application/toml"),
            ("unknown.xyz-of-ours", "application/octet-stream"),
            ("no-extension", "application/octet-stream"),
            ("a.ts/no-extension", "application/octet-stream"),
            (".html", "application/octet-stream"),
            ("ts", "application/octet-stream"),
        ] {
            assert_eq!(content_type(name), expected, "{name}");
        }
    }
}
