//! One request after another: a packet alone each way.

use gannet::proto::perf::{PerfClient, PerfPlan, PerfServer};

use crate::Failure;
use crate::lab::world::{self, CYCLE_NS, NAME, REMOTE, Setup, World};

/// The size of an answer in bytes.
const ANSWER: u64 = 64;

/// Requests before the counted ones.
const WARM_UP: u64 = 500;

/// More requests than are ever made.
const ENDLESS: u64 = 1 << 40;

/// A client that makes a request when it has the answer to the previous one, and its server, in the same thread.
pub struct Alone(World<PerfClient, PerfServer>);

impl Alone {
    /// Connects both ends, and makes requests until all is warm.
    ///
    /// # Errors
    /// If there is no memory, or no request is answered.
    pub fn new() -> Result<Self, Failure> {
        let (client_pool, server_pool) = (world::pool(64 << 20)?, world::pool(64 << 20)?);
        let plan = PerfPlan::new(REMOTE, NAME, world::client_config(1500, world::transport())?);
        let plan = PerfPlan { download: ANSWER, requests: Some(ENDLESS), ..plan };
        let setup = Setup {
            mtu: 1500,
            frames: 512,
            server: world::transport(),
            server_pool: server_pool.clone(),
            client_pool: client_pool.clone(),
            max_connections: 8,
        };
        let client = PerfClient::new(plan, client_pool)?;
        let mut alone = Self(World::new(setup, client, PerfServer::new(server_pool))?);
        alone.0.until(usize::MAX, "answers", |world| world.client.app.results().requests >= WARM_UP)?;
        Ok(alone)
    }

    /// The work of one request: its answer arrives, and the next one is sent.
    pub fn turn(&mut self) {
        self.0.run_server(usize::MAX);
        self.0.run_client(usize::MAX);
    }

    /// Time passes between requests.
    pub fn rest(&mut self) {
        self.0.pass(CYCLE_NS);
    }

    /// The number of answers so far.
    pub fn answers(&self) -> u64 {
        self.0.client.app.results().requests
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_turn_is_one_request() {
        let mut alone = Alone::new().unwrap();
        let before = alone.answers();
        for _ in 0..100 {
            alone.turn();
            alone.rest();
        }
        assert_eq!(alone.answers(), before + 100);
    }
}
