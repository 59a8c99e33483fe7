//! Karpenter's NodeClaims, where the cluster has them: the API may be missing, and may come later.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures::StreamExt;
use kube::api::{DynamicObject, ListParams};
use kube::runtime::reflector::Store;
use kube::runtime::reflector::store::Writer;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use tokio::sync::{Notify, watch};
use tracing::{error, info, warn};

use super::{code, reach};
use crate::claim::{self, ClaimView, Claims};
use crate::cluster::Asked;
use crate::explain::explain;

/// From one look for the API to the next while the cluster has none.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

pub(super) type Known = Asked<Result<Claims, String>>;

pub(super) struct ClaimStore {
    store: Store<DynamicObject>,
    state: watch::Receiver<State>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    NotYetListed,
    /// The cluster has no such API.
    Missing,
    Refused(String),
    Listed,
}

impl ClaimStore {
    pub(super) fn watch(client: Client, changed: Arc<Notify>) -> Self {
        let resource = claim::resource();
        let writer = Writer::new(resource.clone());
        let store = writer.as_reader();
        let api: Api<DynamicObject> = Api::all_with(client, &resource);
        let stream = watcher(api, watcher::Config::default())
            .modify(forget)
            .reflect(writer)
            .backoff(reach::backoff());
        let (sender, state) = watch::channel(State::NotYetListed);
        tokio::spawn(async move {
            let mut stream = std::pin::pin!(stream);
            while let Some(event) = stream.next().await {
                let was = sender.borrow().clone();
                let now = match &event {
                    Ok(watcher::Event::InitDone) => State::Listed,
                    Ok(_) => was.clone(),
                    Err(failure) => match code(failure) {
                        404 => State::Missing,
                        403 => State::Refused(failure.to_string()),
                        _ => was.clone(),
                    },
                };
                if now != was {
                    tell(&now);
                    sender.send_replace(now.clone());
                }
                changed.notify_one();
                if now == State::Missing {
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
            }
            error!("the watch of nodeclaims ended");
        });
        Self { store, state }
    }

    /// Waits until it is known whether there are any.
    pub(super) async fn ready(&self) -> anyhow::Result<()> {
        let mut state = self.state.clone();
        let known = state.wait_for(|state| *state != State::NotYetListed).await;
        known.context("watch nodeclaims")?;
        Ok(())
    }

    pub(super) fn known(&self) -> Known {
        match &*self.state.borrow() {
            State::Missing => Asked::No,
            State::Refused(why) => Asked::Yes(Err(why.clone())),
            State::NotYetListed => Asked::Yes(Err("they are not listed yet".to_owned())),
            State::Listed => {
                let all = self.store.state();
                let claims = all.iter().filter_map(|object| ClaimView::read(object));
                Asked::Yes(Ok(claims.collect()))
            }
        }
    }
}

fn tell(state: &State) {
    match state {
        State::NotYetListed => {}
        State::Missing => info!("the cluster has no NodeClaims (karpenter.sh/v1)"),
        State::Refused(why) => {
            warn!(
                error = why,
                "the nodes of Karpenter are not repaired: apply deploy/rbac/repairer.yaml"
            );
        }
        State::Listed => info!("watching Karpenter's NodeClaims"),
    }
}

/// Most of an object's bytes, and of no use here.
fn forget(object: &mut DynamicObject) {
    object.managed_fields_mut().clear();
    object.annotations_mut().clear();
    if let Some(data) = object.data.as_object_mut() {
        data.retain(|key, _| key == "status");
    }
}

/// The same, asked anew.
pub(super) async fn list(client: &Client) -> anyhow::Result<Known> {
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &claim::resource());
    match api.list(&ListParams::default()).await {
        Ok(list) => {
            let claims = list.items.iter().filter_map(ClaimView::read);
            Ok(Asked::Yes(Ok(claims.collect())))
        }
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Asked::No),
        Err(kube::Error::Api(status)) if status.code == 403 => {
            let why = explain(kube::Error::Api(status)).to_string();
            Ok(Asked::Yes(Err(why)))
        }
        Err(error) => Err(explain(error)).context("list nodeclaims"),
    }
}
