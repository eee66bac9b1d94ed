//! Rounds that would remove too much.

use super::*;

/// Tags that a dry run finds held.
async fn held(world: &World) -> Vec<String> {
    let plan = world.registry.retention_plan(&WHO, None, None, None, 1_000);
    let items = plan.await.unwrap().0.into_iter();
    let held = items.filter(|item| item.held).inspect(|item| {
        assert!(item.kept && item.reason.contains("at once"), "{item:?}");
    });
    held.map(|item| item.tag.unwrap().to_string()).collect()
}

#[tokio::test]
async fn a_round_that_would_take_most_tags_takes_none_until_somebody_says_so() {
    let world = world(LAST_TWO).await;
    for number in 0..12 {
        let tag = format!("vi/a:t{number:02}");
        world.put(&tag, &numbered(number)).await;
        world.clock.advance_ms(1);
    }
    assert_eq!(held(&world).await.len(), 10);
    let round = world.registry.retain(false).await.unwrap();
    assert_eq!((round.tags, round.held_repositories), (0, 1));
    assert_eq!(world.tags("vi/a").await.len(), 12);
    let stats = world.registry.retention_stats();
    assert_eq!(stats.held_repositories.load(Relaxed), 1);

    let round = world.registry.retain(true).await.unwrap();
    assert_eq!((round.tags, round.held_repositories), (10, 0));
    assert_eq!(world.tags("vi/a").await, ["t10", "t11"]);
    assert_eq!(stats.held_repositories.load(Relaxed), 0);

    // From now on each round takes little.
    world.put("vi/a:t12", &numbered(12)).await;
    assert_eq!(world.round_after(0).await.0, 1);
}

#[tokio::test]
async fn a_rule_empties_no_repository_unless_it_says_so() {
    const RULE: &str = "[[retention]]\nrepository = \"vi/a\"\nkeep = [{ within = \"1d\" }]\n";
    let careful = world(RULE).await;
    let free = world(&RULE.replace("keep", "allow_mass_removal = true\nkeep")).await;
    for world in [&careful, &free] {
        world.put("vi/a:a", &numbered(0)).await;
        world.put("vi/a:b", &numbered(1)).await;
    }
    let minutes = 25 * 60;
    assert_eq!(free.round_after(minutes).await.0, 2);
    assert_eq!(careful.round_after(minutes).await.0, 0);
    assert_eq!(held(&careful).await, ["a", "b"]);
    // What is pushed stays, and lets the others go.
    careful.put("vi/a:c", &numbered(2)).await;
    assert!(held(&careful).await.is_empty());
    assert_eq!(careful.round_after(0).await.0, 2);
    assert_eq!(careful.tags("vi/a").await, ["c"]);
}
