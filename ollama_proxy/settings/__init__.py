"""Every setting, declared once: the YAML file and the environment to frozen values."""
