//! Conformance of the OCI distribution API, black-box: everything that the conformance suites of the specification's
//! authors look at, in our own words, over real HTTP.
//!
//! Each area starts the program with an empty data directory and `DVCR_SPARSE=all`. With `DVCR_CONFORMANCE_URL=http://HOST:PORT`
//! the checks run against that registry instead, which must be empty of our test data only by chance: every check makes
//! repositories and content that nobody has used before. Every check of an area runs, whatever became of the others; a
//! failed one is shown with all that went over the wire.
//!
//! A check wants what the suites count as *passed*. Several of them let a registry off with "not supported" where it answers
//! otherwise (a mount that starts an upload, a Range that is ignored, a refused delete, a filter that is not announced); here
//! that is a failure.

#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test that cannot go on has failed, and nobody else uses this"
)]

mod support;

mod conformance {
    mod bench;
    mod blob;
    mod data;
    mod expect;
    mod list;
    mod manifest;
    mod mount;
    mod referrers;
    mod shapes;
    mod strict;
    mod upload;
    mod workflow;

    #[test]
    fn blobs() {
        bench::run_with_each_algorithm(blob::CHECKS);
    }

    #[test]
    fn uploads() {
        bench::run_with_each_algorithm(upload::CHECKS);
    }

    #[test]
    fn mounts() {
        bench::run_with_each_algorithm(mount::CHECKS);
    }

    #[test]
    fn manifests() {
        bench::run(manifest::CHECKS);
    }

    #[test]
    fn shapes() {
        bench::run(&shapes::checks());
    }

    #[test]
    fn lists() {
        bench::run(list::CHECKS);
    }

    #[test]
    fn referrers() {
        bench::run_with_each_algorithm(referrers::CHECKS);
    }

    #[test]
    fn workflows() {
        bench::run(workflow::CHECKS);
    }

    #[test]
    fn strict_repositories() {
        bench::run_strict(strict::CHECKS);
    }

    #[test]
    fn shapes_in_strict_repositories() {
        bench::run_strict(&shapes::complete());
    }
}
