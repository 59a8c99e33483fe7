//! The maps of the BPF programs, filled by more than any host has: they stay as large as they are, and
//! what comes next is found.

use std::fs;

use anyhow::{Context, ensure};
use aya::maps::{HashMap, Map, MapData};
use nodemend_tests::faults::{abort, fill_socket_buffer};

use crate::Test;
use crate::support::Needs::Hook;
use crate::watch::Watch;

pub(crate) const TESTS: &[Test] = &[
    (
        "drops_in_100000_places_leave_room_for_the_next",
        Hook("net-drop"),
        places,
    ),
    (
        "faults_of_100000_entities_leave_room_for_the_next",
        Hook("crash"),
        entities,
    ),
];

const MANY: u32 = 100_000;
/// `max_entries` of both maps in detector-ebpf.
const ROOM: usize = 4096;

fn places() -> anyhow::Result<()> {
    let mut watch = Watch::start(&[])?;
    // Reason, interface, network namespace.
    let key = |number: u32| [number % 100, number, number];
    fill::<_, [u64; 3]>(&watch, "DROP_WINDOWS", key, [0, 1, 0])?;
    let drops = fill_socket_buffer(2000)?;
    watch
        .only_finding("PacketsDropped", "localPort", drops.port)
        .map(drop)
}

fn entities() -> anyhow::Result<()> {
    let mut watch = Watch::start(&[])?;
    // Entity (a cgroup, a device) and kind.
    let key = |number: u32| [u64::from(number) << 32, u64::from(number % 24)];
    fill::<_, [u64; 3]>(&watch, "SECONDS", key, [0, 1, 0])?;
    let crash = abort("one more")?;
    watch.only_finding("AppCrash", "pid", crash).map(drop)
}

fn fill<K: aya::Pod, V: aya::Pod>(
    watch: &Watch,
    name: &str,
    key: impl Fn(u32) -> K,
    value: V,
) -> anyhow::Result<()> {
    let mut map = map_of::<K, V>(watch.pid(), name)?;
    for number in 0..MANY {
        map.insert(key(number), value, 0)
            .with_context(|| format!("insert entry {number} of {name}"))?;
    }
    let entries = map.keys().filter(Result::is_ok).count();
    ensure!(
        (ROOM / 2..=ROOM).contains(&entries),
        "{entries} of {MANY} entries are in {name}"
    );
    Ok(())
}

/// A map that the process holds.
fn map_of<K: aya::Pod, V: aya::Pod>(
    pid: u32,
    name: &str,
) -> anyhow::Result<HashMap<MapData, K, V>> {
    let folder = format!("/proc/{pid}/fdinfo");
    for entry in fs::read_dir(&folder).with_context(|| format!("list {folder}"))? {
        let path = entry.with_context(|| format!("list {folder}"))?.path();
        // One that was closed meanwhile is no map.
        let text = fs::read_to_string(path).unwrap_or_default();
        let id = text.lines().find_map(|line| line.strip_prefix("map_id:"));
        let Some(Ok(id)) = id.map(|id| id.trim().parse()) else {
            continue;
        };
        let map = MapData::from_id(id).with_context(|| format!("open map {id}"))?;
        let info = map.info().with_context(|| format!("ask about map {id}"))?;
        if info.name_as_str() == Some(name) {
            let map = Map::from_map_data(map).with_context(|| format!("use map {name}"))?;
            return HashMap::try_from(map).with_context(|| format!("use map {name}"));
        }
    }
    anyhow::bail!("process {pid} has no map {name}")
}
