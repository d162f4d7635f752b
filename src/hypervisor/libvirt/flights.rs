//! One call for all who ask the same at the same time, and for a moment after.
//!
//! Anybody may ask for the host's facts or a network's leases, many times in one query. Were each
//! a call of its own, one thing that hangs would soon hold every place at the gate.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use tokio::time::Instant;

use crate::hypervisor::HypervisorError;

/// How long an answer stays good. An error is told to those who waited for it, and not kept.
const FRESH: Duration = Duration::from_secs(2);

type Landed<T> = (Instant, Result<T, HypervisorError>);
type Flight<T> = Shared<BoxFuture<'static, Landed<T>>>;

/// The flights under way and their fresh answers, by what is asked.
pub(super) struct Flights<K, T> {
    by_key: Arc<Mutex<HashMap<K, Flight<T>>>>,
}

impl<K, T> Default for Flights<K, T> {
    fn default() -> Self {
        Self { by_key: Arc::default() }
    }
}

impl<K, T> std::fmt::Debug for Flights<K, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Flights")
    }
}

impl<K, T> Flights<K, T>
where
    K: Eq + Hash,
    T: Clone + Send + Sync + 'static,
{
    /// A fresh answer, that of the flight under way, or that of `call`. A flight goes on when
    /// those who wait for it stop: the next one must not have to start over.
    pub(super) async fn ask<F>(&self, key: K, call: F) -> Result<T, HypervisorError>
    where
        F: Future<Output = Result<T, HypervisorError>> + Send + 'static,
    {
        let flight = {
            let mut by_key = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
            by_key.retain(|_, flight| flight.peek().is_none_or(is_fresh));
            by_key
                .entry(key)
                .or_insert_with(|| {
                    let flight = async move {
                        let outcome = call.await;
                        (Instant::now(), outcome)
                    };
                    let flight = flight.boxed().shared();
                    // Driven on by its own task; who waits has a clone.
                    drop(tokio::spawn(flight.clone()));
                    flight
                })
                .clone()
        };
        flight.await.1
    }
}

fn is_fresh<T>((at, outcome): &Landed<T>) -> bool {
    outcome.is_ok() && at.elapsed() < FRESH
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::{future::join_all, poll};
    use tokio::sync::Semaphore;

    use super::*;

    /// Counts its calls; each ends when it is let.
    struct Source {
        calls: AtomicUsize,
        ends: Semaphore,
        fails: bool,
    }

    impl Source {
        fn new(ends: usize, fails: bool) -> Arc<Self> {
            Arc::new(Self { calls: AtomicUsize::new(0), ends: Semaphore::new(ends), fails })
        }

        async fn call(self: Arc<Self>) -> Result<usize, HypervisorError> {
            let call = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
            self.ends.acquire().await.unwrap().forget();
            if self.fails {
                return Err(HypervisorError::NotFound { operation: format!("call {call}") });
            }
            Ok(call)
        }

        fn calls(&self) -> usize {
            self.calls.load(Ordering::SeqCst)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn many_questions_are_one_call_while_it_flies_and_for_a_moment_after() {
        let (flights, source) = (Flights::default(), Source::new(3, false));
        let answers = join_all((0..50).map(|_| flights.ask("a", source.clone().call()))).await;
        assert!(answers.iter().all(|answer| matches!(answer, Ok(1))), "{answers:?}");
        assert_eq!(flights.ask("a", source.clone().call()).await.unwrap(), 1, "still fresh");
        assert_eq!(flights.ask("b", source.clone().call()).await.unwrap(), 2, "another question");
        tokio::time::advance(FRESH).await;
        assert_eq!(flights.ask("a", source.clone().call()).await.unwrap(), 3);
        assert_eq!(source.calls(), 3);
        assert_eq!(flights.by_key.lock().unwrap().len(), 1, "what is stale is not kept");
    }

    #[tokio::test]
    async fn an_error_is_for_those_who_waited() {
        let (flights, source) = (Flights::default(), Source::new(0, true));
        let mut asking = join_all((0..20).map(|_| flights.ask((), source.clone().call())));
        assert!(poll!(&mut asking).is_pending());
        source.ends.add_permits(2);
        let answers = asking.await;
        assert!(answers.iter().all(Result::is_err));
        assert_eq!(source.calls(), 1);
        flights.ask((), source.clone().call()).await.unwrap_err();
        assert_eq!(source.calls(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flight_goes_on_without_those_who_asked() {
        let (flights, source) = (Flights::default(), Source::new(0, false));
        for _ in 0..3 {
            let waiting = flights.ask((), source.clone().call());
            assert!(tokio::time::timeout(FRESH * 2, waiting).await.is_err());
        }
        source.ends.add_permits(1);
        assert_eq!(flights.ask((), source.clone().call()).await.unwrap(), 1);
        assert_eq!(source.calls(), 1);
    }
}
