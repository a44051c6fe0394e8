# Lets the package be configured against ROS 2 wheels in a virtual environment; with a ROS installation it does nothing.
#
#   . .venv/bin/activate && colcon build

# The wheels of the active environment are found as an installation is found.
if(DEFINED ENV{VIRTUAL_ENV} AND EXISTS "$ENV{VIRTUAL_ENV}/share/ament_index")
  list(APPEND CMAKE_PREFIX_PATH "$ENV{VIRTUAL_ENV}")
  set(ENV{AMENT_PREFIX_PATH} "$ENV{VIRTUAL_ENV}:$ENV{AMENT_PREFIX_PATH}")
endif()

# The wheels' exported targets carry include directories of the machine that built them (its Python headers). CMake
# refuses imported targets with an include directory that does not exist, so those are dropped before it looks.
function(drop_missing_include_directories)
  get_property(targets DIRECTORY PROPERTY IMPORTED_TARGETS)
  foreach(target IN LISTS targets)
    get_target_property(directories ${target} INTERFACE_INCLUDE_DIRECTORIES)
    if(directories)
      set(present)
      foreach(directory IN LISTS directories)
        if(directory MATCHES "^\\$<" OR EXISTS "${directory}")
          list(APPEND present "${directory}")
        endif()
      endforeach()
      set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${present}")
    endif()
  endforeach()
endfunction()

cmake_language(DEFER CALL drop_missing_include_directories)
