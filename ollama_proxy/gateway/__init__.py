"""One admitted call: resolve the model, prepare the request, open an upstream, deliver the answer."""
