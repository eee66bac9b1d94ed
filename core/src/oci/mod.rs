//! The vocabulary of the OCI distribution and image specifications.
