"""Creating a project in the browser, empty or with the settings of another one."""
