//! The media type of a file, by its name alone.

/// The media type that an HTTP client should see for a file of this name, or none where the name does not tell. Small
/// on purpose: what browsers show, and text. Whoever needs more sets the type when storing.
pub(crate) fn guess(name: &str) -> Option<&'static str> {
    let (_, extension) = name.rsplit_once('.')?;
    Some(match extension.to_ascii_lowercase().as_str() {
        "html" | "htm" => "text/html",
        "css" => "text/css",
        "js" | "mjs" => "text/javascript",
        "md" => "text/markdown",
        "csv" => "text/csv",
        "txt" | "rs" | "c" | "h" | "cc" | "cpp" | "hpp" | "py" | "sh" | "s" | "asm" => "text/plain",
        "json" => "application/json",
        "toml" => "application/toml",
        "yaml" | "yml" => "application/yaml",
        "xml" => "application/xml",
        "pdf" => "application/pdf",
        "wasm" => "application/wasm",
        "gz" => "application/gzip",
        "zip" => "application/zip",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "svg" => "image/svg+xml",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::guess;

    #[test]
    fn the_last_extension_counts_and_case_does_not() {
        assert_eq!(guess("a/b.tar.GZ"), Some("application/gzip"));
        assert_eq!(guess("README"), None);
        assert_eq!(guess("lib.rs"), Some("text/plain"));
        assert_eq!(guess(".gitignore"), None);
    }
}
