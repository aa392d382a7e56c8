"""The live page: a separate process that receives what a run publishes, and shows it in browsers."""
