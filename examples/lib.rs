//! What the examples share, and the test that the documentation's code compiles.

use std::io;

/// Waits until somebody wants this process to end: Ctrl-C, or the SIGTERM of `kill`, systemd or Kubernetes. Until the
/// first call they end it at once.
pub async fn stop_signal() -> io::Result<()> {
    #[cfg(unix)]
    {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => interrupted,
            _ = terminate.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}

// The Rust code of the documentation runs as tests here, where there is everything that it uses.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

#[cfg(doctest)]
#[doc = include_str!("../docs/guide/start.md")]
mod start {}

#[cfg(doctest)]
#[doc = include_str!("../docs/guide/lifetime.md")]
mod lifetime {}

#[cfg(doctest)]
#[doc = include_str!("../docs/guide/state.md")]
mod state {}
