//! Structured logs on standard error; the level comes from RUST_LOG.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::args::Format;

/// Lines that are short enough to be part of a view, of what needs to be seen.
pub(crate) fn start_in_view(writer: impl for<'writer> MakeWriter<'writer> + Send + Sync + 'static) {
    tracing_subscriber::fmt()
        .with_env_filter(filter(LevelFilter::WARN))
        .with_writer(writer)
        .with_ansi(false)
        .without_time()
        .with_target(false)
        .init();
}

pub(crate) fn start(format: Format) {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(LevelFilter::INFO))
        .with_writer(std::io::stderr);
    match format {
        Format::Text => builder.init(),
        Format::Json => builder.json().flatten_event(true).init(),
    }
}

fn filter(default: LevelFilter) -> EnvFilter {
    EnvFilter::builder()
        .with_default_directive(default.into())
        .from_env_lossy()
}
