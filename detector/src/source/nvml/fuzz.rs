//! Whatever NVML says of a GPU, a state a line: text as the session makes it plain, numbers as they are.

use super::details::plain;
use crate::fuzz;
use crate::metrics::Metrics;
use crate::signal::{GpuState, SourceName, What};

const GPU: &str = "0000:05:00";
const MOST: usize = 64;

pub(crate) fn states(bytes: &[u8]) {
    let lines = bytes.split(|byte| *byte == b'\n').take(MOST);
    let states: Vec<GpuState> = lines
        .filter_map(|line| serde_json::from_slice(line).ok())
        .map(made_plain)
        .collect();
    let metrics = Metrics::default();
    let mut whats = Vec::new();
    for state in states {
        metrics.gpus(&[(GPU.to_owned(), state.clone())].into());
        assert!(metrics.text().lines().all(|line| !line.is_empty()));
        let partition = state.details.partitions.first();
        let xid = What::Xid {
            gpu: GPU.to_owned(),
            partition: partition.map(|partition| partition.instance),
            xid: 79,
            detail: None,
            process: None,
            seen_by: SourceName::Nvml,
            driver: Some("nvidia".to_owned()),
        };
        let gpu = GPU.to_owned();
        whats.extend([What::Gpu { gpu, state }, xid]);
    }
    fuzz::tell(whats);
}

fn made_plain(mut state: GpuState) -> GpuState {
    let details = &mut state.details;
    let partitions = details.partitions.iter_mut();
    let of_partitions = partitions.flat_map(|of| of.holders.iter_mut().chain([&mut of.uuid]));
    let texts = [&mut state.lost, &mut state.uuid, &mut details.serial];
    let texts = texts.into_iter().flatten().chain(&mut state.holders);
    for text in texts.chain(of_partitions).chain(&mut details.processes) {
        *text = plain(&*text);
    }
    state
}
