//! Waiting for something to become true, with the last reason why it is not in the error.

use std::time::Duration;

use anyhow::bail;
use tokio::time::Instant;

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(50);

/// Asks `check` until it answers `Some`. An error counts as "not yet" and is told at the end:
/// servers that are starting refuse connections.
pub async fn until<T>(
    timeout: Duration,
    what: &str,
    mut check: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + timeout;
    let mut last_error = "; the first look did not end".to_owned();
    loop {
        match tokio::time::timeout_at(deadline, check()).await {
            Ok(Ok(Some(value))) => return Ok(value),
            Ok(Ok(None)) => last_error.clear(),
            Ok(Err(error)) => last_error = format!("; last error: {error:#}"),
            // What the look before it said still holds.
            Err(_elapsed) => {}
        }
        if Instant::now() >= deadline {
            bail!("waited {timeout:?} in vain for: {what}{last_error}");
        }
        tokio::time::sleep(POLL).await;
    }
}
