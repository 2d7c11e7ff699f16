"""The CroCo network, part by part."""
