"""What the scripts share, one floor per stage; imports only point down: base, data, network, classifier, evaluation."""
