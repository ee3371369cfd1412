//! Tokens and passwords: given in the configuration, or in a file that is read anew at every connect, so that whoever renews
//! them need not stop the engine. Never shown: errors name the file, and nothing of what is in it.

use std::io;
use std::path::{Path, PathBuf};

use tokio::io::AsyncReadExt;

use crate::config::Secret;

/// Most bytes of a file with a token, or with a message that is to be sent.
pub(in crate::consumer) const MAX_TOKEN_BYTES: usize = 1 << 20;
/// The only key of a mapping that stands for the text of a file.
pub(in crate::consumer) const FILE_KEY: &str = "file";

/// Where a token comes from.
#[derive(Clone, Debug)]
pub(in crate::consumer) enum Token {
    Given(Secret),
    File(PathBuf),
}

/// Why a token can't be had.
#[derive(Debug, thiserror::Error)]
pub(in crate::consumer) enum TokenError {
    #[error("can't read {}: {source}; it must be a file that the engine's user may read", .path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{} is empty; it must hold the text that is to be sent", .0.display())]
    Empty(PathBuf),
    #[error("{} holds more than {MAX_TOKEN_BYTES} bytes", .0.display())]
    Long(PathBuf),
    #[error("{} is not UTF-8", .0.display())]
    NotText(PathBuf),
    #[error("{} holds characters that a header can't hold", .0.display())]
    NotForAHeader(PathBuf),
}

impl Token {
    /// The token as it is now.
    pub(in crate::consumer) async fn read(&self) -> Result<Secret, TokenError> {
        match self {
            Self::Given(secret) => Ok(secret.clone()),
            Self::File(path) => read_file(path).await.map(Secret::new),
        }
    }
}

/// The text of a file, without the line ends behind it, which editors and `echo` add.
pub(in crate::consumer) async fn read_file(path: &Path) -> Result<String, TokenError> {
    let unreadable = |source| TokenError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let file = tokio::fs::File::open(path).await.map_err(unreadable)?;
    let mut bytes = Vec::new();
    let limit = MAX_TOKEN_BYTES as u64 + 1;
    file.take(limit)
        .read_to_end(&mut bytes)
        .await
        .map_err(unreadable)?;
    if bytes.len() > MAX_TOKEN_BYTES {
        return Err(TokenError::Long(path.to_owned()));
    }
    let mut text = String::from_utf8(bytes).map_err(|_| TokenError::NotText(path.to_owned()))?;
    text.truncate(text.trim_end_matches(['\r', '\n']).len());
    if text.is_empty() {
        return Err(TokenError::Empty(path.to_owned()));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_is_read_anew_without_its_line_end_and_faults_name_it_but_not_its_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let token = Token::File(path.clone());
        for (written, read) in [
            ("first\n", "first"),
            ("second\r\n", "second"),
            ("third ", "third "),
        ] {
            std::fs::write(&path, written).unwrap();
            assert_eq!(token.read().await.unwrap().expose(), read);
        }
        let long = vec![b'x'; MAX_TOKEN_BYTES + 1];
        for (written, said) in [
            (&b"\n"[..], "empty"),
            (b"hidden\xff", "UTF-8"),
            (&long, "more than"),
        ] {
            std::fs::write(&path, written).unwrap();
            let refused = token.read().await.unwrap_err().to_string();
            assert!(
                refused.contains(said) && refused.contains(&path.display().to_string()),
                "{refused}"
            );
            assert!(!refused.contains("hidden"), "{refused}");
        }
        std::fs::remove_file(&path).unwrap();
        let refused = token.read().await.unwrap_err().to_string();
        assert!(refused.contains("can't read"), "{refused}");
    }
}
