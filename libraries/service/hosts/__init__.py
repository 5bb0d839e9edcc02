"""Where the classifier runs other than in the service's own process: Azure ML, a local process."""
